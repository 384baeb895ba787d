"""A machine for msmodelslim: real folders, a real Python, real shells; CANN's and the tool's files
are stand-ins, for the real ones need Ascend hardware.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import checkpoint_case
from outside import plain_python

HERE = Path(__file__).resolve().parents[1]
PACKAGES = {
    "transformers": "4.48.2",
    "accelerate": "1.2.1",
    "torch": "2.1.0",
    "torch_npu": "2.1.0.post10",
}
TOOLKIT = "latest/x86_64-linux/ascend_toolkit_install.info"
KERNELS = "latest/opp_kernel/version.info"


class Machine:
    """Folders of an Ascend machine below one folder, and the options that name them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.python = plain_python(root, "-B")
        self.source = checkpoint_case.make(root / "models" / "DeepSeek-R1")
        self.out = root / "models" / "DeepSeek-R1-W8A8"
        self.partial = self.out.with_name("DeepSeek-R1-W8A8.incomplete")
        self.side = self.out.with_name("DeepSeek-R1-W8A8.msmodelslim")
        self.tool = root / "msit" / "msmodelslim"
        self.script = self.tool / "example" / "DeepSeek" / "quant_deepseek_w8a8.py"
        self.script.parent.mkdir(parents=True)
        shutil.copy(HERE / "fake_slim" / "quant_deepseek_w8a8.py", self.script)
        self.cann = root / "ascend toolkit"  # a blank: what is quoted wrongly shows
        self.write(TOOLKIT, "package_name=Ascend-cann-toolkit\nversion=8.1.RC1\n")
        self.write(KERNELS, "Version=7.7.0.1.238\nversion_dir=8.1.RC1\n")
        self.set_env = self.write(
            "set_env.sh",
            'here=$(dirname "${BASH_SOURCE[0]}")\necho sourced\n'
            'export ASCEND_TOOLKIT_HOME="$here/latest" PYTHONPATH="$here/site:$PYTHONPATH"\n',
        )
        # The tool's own Python is one of 3.9 to 3.11, whichever runs the tests.
        self.write(
            "site/sitecustomize.py", "import sys\nsys.version_info = (3, 11, 7, 'final', 0)\n"
        )
        for name, version in PACKAGES.items():
            self.install(name, version)

    def write(self, name: str, text: str) -> Path:
        """A file of CANN."""
        path = self.cann / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def install(self, name: str, version: str) -> None:
        """What pip leaves of a package for those who ask for its version."""
        self.remove(name)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        self.write(f"site/{name}-{version}.dist-info/METADATA", text)

    def remove(self, name: str) -> None:
        """The contrary."""
        for folder in (self.cann / "site").glob(f"{name}-*.dist-info"):
            shutil.rmtree(folder)

    def options(self, *more: str) -> list[str]:
        """The script's command line for this machine."""
        settings = {
            "weights.msmodelslim.dir": self.tool,
            "weights.msmodelslim.set_env": self.set_env,
            "weights.msmodelslim.python": self.python,
            "weights.msmodelslim.timeout_s": 60,
            "ranktable.npu_smi": HERE / "fake_npu" / "npu-smi",
        }
        words = [f"--set={name}={value}" for name, value in settings.items()]
        return ["--source", str(self.source), "--target", str(self.out), *words, *more]
