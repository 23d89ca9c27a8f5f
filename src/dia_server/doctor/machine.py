"""Checks Python, PyTorch, GPUs and their drivers."""

import platform
import shutil
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dia_server.doctor.finding import Finding, note, ok, wrong
from dia_server.engine.devices import Device, accelerators, has_driver
from dia_server.settings import Settings
from dia_server.units import GIB

PCI_DEVICES = Path("/sys/bus/pci/devices")
PCI_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD"}
PCI_DISPLAY = "0x03"

SMALL_GPU = 6 * GIB
"""GPU memory in bytes below which few utterances fit beside the weights (3.1 GiB) and the codec."""


def check_python(conf: Settings) -> Iterator[Finding]:
    yield ok("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    packages = ["torch", "torchaudio", "transformers"]
    missing = [name for name in packages if _version(name) is None]
    if missing and wants_dia(conf):
        yield wrong("PyTorch", f"{', '.join(missing)} not installed: Dia cannot run. Reinstall dia-server.")
    elif missing:
        yield note("PyTorch", f"{', '.join(missing)} not installed; the preview engine needs none of them.")
    else:
        yield ok("PyTorch", ", ".join(f"{name} {_version(name)}" for name in packages))


def check_gpu(
    conf: Settings, pci_devices: Path = PCI_DEVICES, missing_parts: Iterable[str] | None = None
) -> Iterator[Finding]:
    """Report the GPUs and, if there are any, what Dia's kernels lack; tests set this with `missing_parts`."""
    devices = accelerators()
    for device in devices:
        yield _check_memory(device)
    if not devices:
        needed = conf.engine == "dia" and conf.device not in {"auto", "cpu"}
        yield (wrong if needed else note)("GPU", f"{_why_none(pci_devices)} {_what_then(conf)}")
    elif wants_dia(conf) and not _is_there(conf.device, devices):
        names = ", ".join(device.torch_name for device in devices)
        yield wrong("GPU", f"DIA_DEVICE={conf.device} does not exist. This machine has {names}.")
    elif conf.engine != "preview" and conf.device != "cpu":
        missing = missing_for_kernels(python_headers()) if missing_parts is None else missing_parts
        yield from _check_compiler(list(missing))


def _check_compiler(missing: list[str]) -> Iterator[Finding]:
    if missing:
        yield note(
            "Compiler",
            f"{' and '.join(missing)} not found: Dia's GPU kernels cannot be built, so plain PyTorch runs "
            "it, which is slower. Install gcc and python3-dev.",
        )


def wants_dia(conf: Settings) -> bool:
    """Return whether the server will choose Dia; for `auto`, an installed driver counts as a GPU."""
    return conf.engine == "dia" or (conf.engine == "auto" and has_driver())


def _is_there(name: str, devices: Sequence[Device]) -> bool:
    """Return whether `name`, the value of DIA_DEVICE, is usable: "auto", "cpu", or one of `devices`.

    "cuda" means the first GPU.
    """
    return name in {"auto", "cpu"} or any(name in {d.torch_name, d.torch_name.split(":")[0]} for d in devices)


def _check_memory(device: Device) -> Finding:
    text = f"{device.model} ({device.torch_name}), {device.memory / GIB:.1f} GiB"
    if device.memory < SMALL_GPU:
        return note("GPU", f"{text}: few requests fit beside the model, if any. See docs/tuning.md.")
    return ok("GPU", text)


def _why_none(pci_devices: Path) -> str:
    if has_driver():
        return (
            f"A GPU driver is installed, but torch {_version('torch')} finds no device: it may be built for "
            "another kind of GPU or need a newer driver, or CUDA_VISIBLE_DEVICES hides all GPUs."
        )
    if vendors := sorted(set(_pci_gpus(pci_devices))):
        return f"There is a GPU ({', '.join(vendors)}), but no driver for it: install the vendor's driver."
    return "No GPU found."


def _what_then(conf: Settings) -> str:
    if conf.engine == "dia" and conf.device not in {"auto", "cpu"}:
        return f"Dia cannot run on {conf.device!r}: set DIA_DEVICE=auto."
    if conf.engine == "dia":
        return "Dia runs on the CPU, several times slower than real time."
    return "The preview engine (espeak-ng) speaks instead of Dia."


def _pci_gpus(folder: Path) -> Iterator[str]:
    for device in folder.glob("*"):
        kind, vendor = (device / "class").read_text(), (device / "vendor").read_text().strip()
        if kind.startswith(PCI_DISPLAY) and vendor in PCI_VENDORS:
            yield PCI_VENDORS[vendor]


def missing_for_kernels(headers: Path) -> Iterator[str]:
    """Yield each missing part: Triton, or what Triton needs to compile the launchers of Dia's kernels.

    `headers` is the folder that should contain Python.h.
    """
    if _version("triton") is None:
        yield "Triton"
    if not _has_compiler():
        yield "a C compiler"
    if not (headers / "Python.h").exists():
        yield "Python.h"


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("gcc", "clang"))


def python_headers() -> Path:
    """Return the folder in which Triton looks for Python.h."""
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    return Path(sysconfig.get_paths(scheme=scheme)["include"])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
