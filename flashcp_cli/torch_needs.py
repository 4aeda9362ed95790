"""Says in one line what is missing of what `flashcp run` and `flashcp calibrate` need."""

from importlib.util import find_spec

import click


def require_torch(command: str) -> None:
    """Refuse where the extra is not installed.

    Raises:
        click.ClickException: names the command and what to install.
    """
    if find_spec("torch") is None:
        raise click.ClickException(
            f"flashcp {command} needs PyTorch; install it with: pip install 'flashcp[run]'"
        )


def require_gpu() -> None:
    """Refuse GPUs where torch has none.

    Raises:
        click.BadParameter: says what else to take.
    """
    from executor.device import visible_devices

    if visible_devices("cuda") == 0:
        raise click.BadParameter(
            "torch sees no GPU here; take --device cpu, or a torch built for CUDA",
            param_hint="--device cuda",
        )
