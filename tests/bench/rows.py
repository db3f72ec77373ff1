"""The rows of the table: units, aims, and what is made of their samples."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    unit: str
    aim: float
    # What the aim is about: the ratio to the limit, or the median itself.
    of: str = "ratio"
    higher_is_better: bool = False
    statistic: str = "median"  # of both sides of the ratio


ROWS = {row.name: row for row in (
    Row("read_12k_awake", "us", 1.5),
    Row("read_12k_asleep", "us", 1.15),
    Row("ring_sequential", "MiB/s", 0.7, higher_is_better=True),
    Row("rdma_1m", "MiB/s", 0.9, higher_is_better=True),
    Row("rdma_7m", "MiB/s", 0.9, higher_is_better=True),
    Row("attached_rss", "KiB", 16, of="median"),
    Row("attached_wakeups", "in 60 s", 0, of="median"),
    Row("open_rss", "KiB", 64, of="median"),
    Row("open_wakeups", "in 60 s", 0, of="median"),
    Row("start_10k", "s", 2, of="median"),
    Row("flood_p99", "us", 3, statistic="p99"),
    Row("scale_1000", "us", 1.2),
    Row("unary_read", "calls/s", 0.8, higher_is_better=True),
    Row("durable_attach", "calls/s", 0.5, higher_is_better=True),
)}


def percentile_99(samples, higher_is_better=False):
    """The sample that 99 of 100 are at least as good as."""
    ordered = sorted(samples, reverse=higher_is_better)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


class Samples:
    """All samples of a run: by row, by side, by repeat."""

    def __init__(self):
        self._sets = {}

    def add(self, row, side, repeat, values):
        self._sets.setdefault(row, {}).setdefault(side, {}).setdefault(repeat, []).extend(values)

    def add_line(self, line):
        """A line of the guest's program: ROW SIDE REPEAT SAMPLE..."""
        row, side, repeat, *values = line.split()
        self.add(row, side, int(repeat), [float(value) for value in values])

    def rows(self):
        return [name for name in ROWS if name in self._sets]

    def sides(self, row):
        return self._sets[row]

    def all(self, row, side):
        return [value for values in self._sets[row].get(side, {}).values() for value in values]


def result(samples, name):
    """One entry of bench.json; what is beside the named fields is for --compare and plots."""
    row = ROWS[name]

    def statistic(values):
        if row.statistic == "p99":
            return percentile_99(values, row.higher_is_better)
        return statistics.median(values)

    values = samples.all(name, "value")
    limits = samples.all(name, "limit")
    limit = statistic(limits) if limits else None
    ratio = statistic(values) / limit if limits else None
    measured = statistics.median(values) if row.of == "median" else ratio
    met = measured is not None and (
        measured >= row.aim if row.higher_is_better else measured <= row.aim)
    sides = samples.sides(name)
    repeats = [statistic(sides["value"][i]) / (statistic(sides["limit"][i]) if limits else 1)
               for i in sorted(sides["value"])]
    return {
        "name": name,
        "median": statistics.median(values),
        "p99": percentile_99(values, row.higher_is_better),
        "unit": row.unit,
        "limit": limit,
        "ratio": ratio,
        "aim": row.aim,
        "met": met,
        "repeats": repeats,
        "beside": {side: statistics.median(samples.all(name, side))
                   for side in sides if side not in ("value", "limit")},
    }


def _number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _aim(row):
    sign = "≥" if row.higher_is_better else "≤"
    return f"{sign} {row.aim:g}" + ("" if row.of == "ratio" else f" {row.unit}")


def table(results):
    """The table as Markdown, which reads well on a terminal too."""
    lines = [["name", "median", "p99", "unit", "limit", "ratio", "aim", "met"]]
    for entry in results:
        row = ROWS[entry["name"]]
        lines.append([row.name, _number(entry["median"]), _number(entry["p99"]), row.unit,
                      _number(entry["limit"]), _number(entry["ratio"]), _aim(row),
                      "yes" if entry["met"] else "no"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    text = "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
                     for line in lines)
    beside = [f"{entry['name']}: {side} {_number(value)} {entry['unit']}"
              for entry in results for side, value in entry["beside"].items()]
    return text + ("\n\nbeside: " + "; ".join(beside) if beside else "")


def compare(old, new):
    """Lines that say which rows changed by more than their repeats differ among themselves."""
    before = {entry["name"]: entry for entry in old["results"]}
    lines = []
    for entry in new["results"]:
        name = entry["name"]
        if name not in before or name not in ROWS:
            lines.append(f"{name}: new, nothing to compare with")
            continue
        was, now = before[name]["repeats"], entry["repeats"]
        middle_was, middle_now = statistics.median(was), statistics.median(now)
        change = f"{_number(middle_was)} -> {_number(middle_now)}"
        if min(now) <= max(was) and min(was) <= max(now):
            lines.append(f"{name}: within the noise ({change})")
            continue
        better = (middle_now > middle_was) == ROWS[name].higher_is_better
        lines.append(f"{name}: {'better' if better else 'WORSE'} ({change})")
    return lines
