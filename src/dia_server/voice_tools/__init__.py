"""`dia-server voices`: lists, makes, exports and imports voices, over HTTP or in the data folder itself."""

from dia_server.voice_tools.local import Local
from dia_server.voice_tools.remote import Remote, VoiceToolError
from dia_server.voice_tools.tables import candidate_table, voice_table

__all__ = ["Local", "Remote", "VoiceToolError", "candidate_table", "voice_table"]
