"""Tables of numbers: CSV and Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvae.data.arrays import Splits, check_file
from dvae.data.module import DataModule
from dvae.errors import InputError, reason_of

__all__ = ["Table"]


class Table(DataModule):
    """The numbers of a table's columns, a row an example; from a ``.csv`` or a ``.parquet`` file. Needs pyarrow.

    Columns have units of their own: :class:`dvae.likelihoods.Normal` keeps each one's mean and standard deviation in the checkpoint
    and works in units of these, so that new rows are scaled as those of the training set were.

    Arguments:
        train: the file.
        valid, test: likewise.
        columns: names of those that are x; by default all that hold numbers, but the label's.
        label: name of a column of whole numbers or of text, whose values become labels in their sorted order.
        valid_fraction, test_fraction, batch_size, eval_batch_size, drop_last, seed, data_seed: see :class:`DataModule`.

    Attributes:
        names: of the columns that are x, in their order.

    Raises:
        InputError: pyarrow is not installed, a file cannot be read, a column does not exist, holds no numbers, or lacks values.
    """

    names: Sequence[str]

    are_images = False

    def __init__(
        self,
        train: str | Path,
        valid: str | Path | None = None,
        test: str | Path | None = None,
        *,
        columns: Sequence[str] | None = None,
        label: str | None = None,
        valid_fraction: float | None = None,
        test_fraction: float | None = None,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            drop_last=drop_last,
            seed=seed,
            data_seed=data_seed,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
        )
        self.columns = columns
        self.label = label
        self._sources = {"train": train, "valid": valid, "test": test}

    def read(self) -> Splits:
        tables = {name: _read(Path(source), name) for name, source in self._sources.items() if source is not None}
        self.names = list(self.columns) if self.columns is not None else _numeric(tables["train"], self.label)
        if not self.names:
            raise InputError("columns: the table must have a column of numbers, got none")
        parts: dict[str, Any] = {name: self._values(table, name) for name, table in tables.items()}
        labels: dict[str, Any] = {}
        if self.label is not None:
            raw = {name: _column(table, self.label, name).to_numpy(zero_copy_only=False) for name, table in tables.items()}
            known = np.unique(raw["train"].astype(str) if raw["train"].dtype.kind not in "iu" else raw["train"])
            for name, values in raw.items():
                values = values.astype(known.dtype) if known.dtype.kind in "iu" else values.astype(str)
                if unknown := set(values.tolist()) - set(known.tolist()):
                    raise InputError(f"{name}: column {self.label} must have the training set's values, got {sorted(unknown)[:3]}")
                labels[name] = np.searchsorted(known, values)
        return Splits(**parts, labels=labels)

    def _values(self, table: Any, name: str) -> np.ndarray:
        columns = []
        for column in self.names:
            values = _column(table, column, name)
            if values.null_count:
                raise InputError(
                    f"{name}: column {column} must have a value in every row, but {values.null_count} of {len(values)} are missing"
                )
            array = values.to_numpy(zero_copy_only=False)
            if array.dtype.kind not in "biuf":
                raise InputError(f"{name}: column {column} must hold numbers, got {values.type}; name others with columns")
            columns.append(array.astype(np.float64))
        return np.stack(columns, 1)


def _read(path: Path, name: str) -> Any:
    try:
        from pyarrow import csv, parquet
    except ImportError:
        raise InputError("Table needs pyarrow, which is not installed: pip install discrete-vae[tables]") from None
    check_file(path, name)
    try:
        return parquet.read_table(path) if path.suffix in (".parquet", ".pq") else csv.read_csv(path)
    except Exception as error:  # pyarrow raises whatever the damaged bytes lead to
        raise InputError(f"{name} must be a .csv or .parquet file, but {path} cannot be read as one ({reason_of(error)})") from None


def _column(table: Any, column: str, name: str) -> Any:
    if column not in table.column_names:
        raise InputError(f"{name} must have a column {column}, got {', '.join(table.column_names)}")
    return table.column(column)


def _numeric(table: Any, label: str | None) -> list[str]:
    from pyarrow import types

    def is_number(kind: Any) -> bool:
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))

    return [field.name for field in table.schema if field.name != label and is_number(field.type)]
