from dia_server.cli import main

main()
