"""Reading bench.h5, with nothing but h5py: where measurements are made there may be no library for pictures."""

import numbers
import os
import sys

import h5py

NEEDED = ("ranks", "tensor", "sequences", "length", "seconds_per_step", "tokens_per_second", "peak_fraction", "seconds_communication")


def columns(group):
    return {name: data[:] for name, data in group.items() if isinstance(data, h5py.Dataset)}


def read(path, complain=sys.exit):
    """The rows of /bench, each a dictionary. `complain` ends the program with a text where there is none."""
    if not os.path.exists(path):
        complain(f"{path} does not exist (expected a bench.h5)")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("kind") != "roformer bench":
                complain(f"{path} is no bench file of roformer")
            table_of = {name: [value.decode() if isinstance(value, bytes) else value for value in values] for name, values in columns(file["bench"]).items()}
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        complain(f"{path} cannot be read: {error}")
    if missing := [name for name in NEEDED if name not in table_of]:
        complain(f"{path}: /bench has no column {missing[0]}")
    count = len(table_of["ranks"])
    if uneven := [name for name, values in table_of.items() if len(values) != count]:
        complain(f"{path}: /bench/{uneven[0]} has {len(table_of[uneven[0]])} rows, expected {count} as /bench/ranks has")
    if not count:
        complain(f"{path} holds no measurement")
    rows = [{name: values[i] for name, values in table_of.items()} for i in range(count)]
    for i, row in enumerate(rows):
        if not all(isinstance(row[name], numbers.Real) for name in NEEDED):
            complain(f"{path}: row {i} of /bench holds text where a number is expected")
        if not (row["ranks"] >= 1 and row["tensor"] >= 1 and row["sequences"] >= 1 and row["seconds_per_step"] > 0 and row["tokens_per_second"] > 0):
            complain(f"{path}: row {i} of /bench is no measurement (ranks, tensor, sequences, seconds_per_step and tokens_per_second are to be above 0)")
    return rows
