"""Where calibrations are kept: one JSON file each, in the user's cache folder or where the operator puts it."""

import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from service.calibration.measurement import Measurement
from service.calibration.pairs import built_in_source
from service.whole_files import write_whole


class CalibrationError(ValueError):
    """A calibration that cannot be used. The message names the file and what is wrong."""


def default_path(judge: str) -> Path:
    """Where the service looks for the operator's calibration of the judge with this digest."""
    return _folder() / f"{judge}.json"


def built_in_path(judge: str) -> Path:
    """Where the measurement by the built-in pairs is kept, as long as they stay the same."""
    pairs = hashlib.sha256(built_in_source().encode()).hexdigest()[:8]
    return _folder() / f"{judge}-built-in-{pairs}.json"


def load(path: Path) -> Measurement:
    """Read a calibration. Raises CalibrationError."""
    try:
        return Measurement.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False)
        where = ".".join(map(str, first["loc"]))
        raise CalibrationError(f"{path} is not a calibration: {where + ': ' if where else ''}{first['msg']}") from error


def save(measurement: Measurement, path: Path) -> None:
    """Write what was measured; the file appears whole or not at all. OSError if it cannot be written."""
    write_whole(path, measurement.model_dump_json(indent=2) + "\n")


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "redraft", "judges")
