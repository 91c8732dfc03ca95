"""Where the numbers of a run go besides metrics.csv: TensorBoard, a service, an object of yours.

class Lines:                                        # all that a tracker needs
    def log(self, values: dict[str, float], step: int) -> None:
        print(step, values["loss/total"])

    def close(self) -> None: ...

leandetr.train("dino-nano", "my/data", "runs/mine", trackers=[Lines(), "wandb"])
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from leandetr.errors import TrainingError
from leandetr.registry import did_you_mean

log = logging.getLogger(__name__)

BOARD = "tensorboard"
"""Written by every run, where it is installed, and asked for by no name."""

PROJECT = "leandetr"
"""What runs are filed under in a service."""

RUN_NAMES = {"wandb": "name", "mlflow": "run_name"}
"""The argument by which a service takes the name of a run, where it has one."""

PACKAGES = {"comet_ml": "comet-ml"}
"""What to install for a service, where that is not called as the service is."""


@runtime_checkable
class Tracker(Protocol):
    """Takes the numbers of a run, on its first process; what it raises ends no run."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Called after every epoch: losses, rate and scores by name, after so many steps."""
        ...

    def close(self) -> None:
        """Called when the run ends, also by an error or Ctrl-C."""
        ...


class TensorBoard:
    """A folder `tensorboard` in the folder of the run. Raises `ImportError` without the package."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / BOARD))

    def log(self, values: dict[str, float], step: int) -> None:
        """Write the numbers of an epoch, on disk at once."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()


class Service:
    """One of the trackers that Accelerate knows, such as wandb, told the settings of the run."""

    def __init__(self, name: str, folder: Path, *, settings: dict[str, Any]) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[name]
        where = [str(folder)] if kind.requires_logging_directory else []
        named = {RUN_NAMES[name]: folder.name} if name in RUN_NAMES else {}
        self._tracker = kind(PROJECT, *where, **named)
        if hasattr(self._tracker, "start"):  # before Accelerate 1.10 it has started by itself
            self._tracker.start()
        self._tracker.store_init_configuration({k: _plain(v) for k, v in settings.items()})

    def log(self, values: dict[str, float], step: int) -> None:
        """Hand over the numbers of an epoch."""
        self._tracker.log(values, step=step)

    def close(self) -> None:
        """Wait until the service has everything."""
        self._tracker.finish()


class Trackers:
    """All trackers of a run. One that raises is told of once and left out from there on."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._left = list(trackers)

    def log(self, values: dict[str, float], step: int) -> None:
        """Hand the numbers of an epoch to every tracker."""
        self._each(lambda tracker: tracker.log(dict(values), step))

    def close(self) -> None:
        """Close every tracker that is left."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self._left):
            try:
                call(tracker)
            except Exception as error:  # noqa: BLE001 - whatever another's code raises
                self._left.remove(tracker)
                _say_left_out(type(tracker).__name__, error)


def open_trackers(
    given: Sequence[Tracker | str], folder: Path, settings: dict[str, Any]
) -> Trackers:
    """The trackers of a run in `folder`: TensorBoard, then those given, by name or ready made."""
    opened: list[Tracker] = []
    try:
        opened.append(TensorBoard(folder))
    except ImportError:
        log.info(
            "metrics go to metrics.csv only; for TensorBoard type: pip install 'leandetr[train]'"
        )
    for one in given:
        if not isinstance(one, str):
            opened.append(one)
        elif one != BOARD:
            try:
                opened.append(Service(one, folder, settings=settings))
            except Exception as error:  # noqa: BLE001 - no login, no network, and so on
                _say_left_out(one, error)
    return Trackers(opened)


def check_trackers(given: Sequence[Tracker | str]) -> None:
    """Refuse, before anything is read, a service that nobody knows or that is not installed.

    Raises `TrainingError`.
    """
    names = [one for one in given if isinstance(one, str) and one != BOARD]
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = [str(one) for one in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = sorted(LOGGER_TYPE_TO_CLASS)
            raise TrainingError(
                f"expected a tracker of {', '.join(known)}; got '{name}'; "
                f"{did_you_mean(name, known)}"
            )
        if name not in installed:
            raise TrainingError(
                f"tracking with {name} needs its package, which is not installed; type: "
                f"pip install {PACKAGES.get(name, name)}, or leave out --track {name}"
            )


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _say_left_out(name: str, error: Exception) -> None:
    log.warning(
        "the tracker %s is left out from here on (%s: %s); the run goes on, and metrics.csv has "
        "everything",
        *(name, type(error).__name__, error),
    )
