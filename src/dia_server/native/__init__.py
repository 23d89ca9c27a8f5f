"""Native code that reads what strangers send, in a process of its own.

espeak-ng, FFmpeg and CTranslate2 can be crashed, or made to take gigabytes or minutes, by their input. A
`NativeWorker` makes one object in a child process and calls its methods there, one call at a time. A crash is
the error of that call alone, and a new child is started at once.

    worker = NativeWorker("espeak", Espeak, deadline_s=10, memory=128 * MIB)
    speech = worker.call(Espeak.speak, "Hello.", profile, 1)

Arguments and results travel as MessagePack of the types that the method is annotated with, never as pickles:
a child that was taken over can only send wrong values. An open file travels as its handle.
"""

from dia_server.native.pool import NativePool as NativePool
from dia_server.native.worker import Closed as Closed
from dia_server.native.worker import NativeFailure as NativeFailure
from dia_server.native.worker import NativeUnavailable as NativeUnavailable
from dia_server.native.worker import NativeWorker as NativeWorker
