"""Runs native code that reads untrusted input in child processes.

Crafted input can crash espeak-ng, FFmpeg and CTranslate2, or make them use gigabytes of memory or minutes of
time. A `NativeWorker` creates one object in a child process and calls its methods there, one call at a time.
If the child crashes, a new child is started and the call is retried once; other calls are not affected.

    worker = NativeWorker("espeak", Espeak, deadline_s=10, memory=128 * MIB)
    speech = worker.call(Espeak.speak, "Hello.", profile, 1)

Arguments and results are encoded as MessagePack according to the method's annotations. They are never
pickled, so a compromised child can return wrong values but cannot run code in the parent. Open files are
passed as handles.
"""

from dia_server.native.pool import NativePool as NativePool
from dia_server.native.worker import Closed as Closed
from dia_server.native.worker import NativeFailure as NativeFailure
from dia_server.native.worker import NativeUnavailable as NativeUnavailable
from dia_server.native.worker import NativeWorker as NativeWorker
