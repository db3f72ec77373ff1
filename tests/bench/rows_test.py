#!/usr/bin/env python3
"""What is made of samples: statistics, aims, and what counts as a change."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import plots  # noqa: E402
from rows import Samples, compare, percentile_99, result, table  # noqa: E402


def samples_of(row, values, limits):
    samples = Samples()
    for repeat, (value, limit) in enumerate(zip(values, limits)):
        samples.add_line(f"{row} value {repeat} " + " ".join(map(str, value)))
        samples.add_line(f"{row} limit {repeat} " + " ".join(map(str, limit)))
    return samples


class Results(unittest.TestCase):
    def test_a_ratio_is_median_by_limit_and_has_the_fields_of_bench_json(self):
        entry = result(samples_of("read_12k_awake", [[3, 3, 9], [3, 3, 3]], [[2, 2, 2], [2, 2, 2]]),
                       "read_12k_awake")
        self.assertEqual((entry["median"], entry["limit"], entry["ratio"]), (3, 2, 1.5))
        self.assertEqual((entry["p99"], entry["unit"], entry["met"]), (9, "us", True))

    def test_a_flood_is_compared_by_p99(self):
        quiet = [1] * 98 + [10, 10]
        entry = result(samples_of("flood_p99", [[1] * 98 + [40, 40]], [quiet]), "flood_p99")
        self.assertEqual((entry["median"], entry["p99"], entry["limit"]), (1, 40, 10))
        self.assertEqual((entry["ratio"], entry["met"]), (4, False))

    def test_throughput_is_good_when_high_and_its_p99_is_the_slow_end(self):
        self.assertEqual(percentile_99(range(1, 101), higher_is_better=True), 1)
        slow = result(samples_of("rdma_1m", [[80]], [[100]]), "rdma_1m")
        self.assertFalse(slow["met"])

    def test_calls_a_second_meet_their_aim_when_high_enough_beside_their_limit(self):
        for row, good, bad in (("unary_read", 80, 79), ("durable_attach", 50, 49)):
            self.assertTrue(result(samples_of(row, [[good]], [[100]]), row)["met"])
            entry = result(samples_of(row, [[bad]], [[100]]), row)
            self.assertFalse(entry["met"])
            self.assertEqual(entry["unit"], "calls/s")

    def test_what_is_only_printed_is_beside(self):
        samples = samples_of("durable_attach", [[50]], [[100]])
        samples.add("durable_attach", "callers_16", 0, [60, 80, 70])
        entry = result(samples, "durable_attach")
        self.assertEqual(entry["beside"], {"callers_16": 70})
        self.assertIn("durable_attach: callers_16 70 calls/s", table([entry]))

    def test_without_a_limit_the_ratio_is_null(self):
        samples = Samples()
        samples.add("attached_rss", "value", 0, [17])
        entry = result(samples, "attached_rss")
        self.assertIsNone(entry["ratio"])
        self.assertIsNone(entry["limit"])
        self.assertFalse(entry["met"])
        self.assertIn("| attached_rss |", table([entry]))


class Compare(unittest.TestCase):
    def _lines(self, row, was, now):
        def run(values):
            return {"results": [result(samples_of(row, [[v] for v in values],
                                                  [[1] for _ in values]), row)]}
        return compare(run(was), run(now))[0]

    def test_overlapping_repeats_are_noise(self):
        self.assertIn("within the noise", self._lines("read_12k_awake", [1, 2, 3], [3, 4, 5]))

    def test_what_lies_beyond_all_repeats_is_a_change(self):
        self.assertIn("WORSE", self._lines("read_12k_awake", [1, 2, 3], [4, 5, 6]))
        self.assertIn("better", self._lines("ring_sequential", [1, 2, 3], [4, 5, 6]))


class Plots(unittest.TestCase):
    def test_plots_are_svg_with_a_bar_a_row(self):
        samples = samples_of("read_12k_awake", [[1, 2, 3]], [[1, 1, 1]])
        bars = plots.ratios([result(samples, "read_12k_awake")])
        self.assertTrue(bars.startswith("<svg "))
        self.assertIn("read_12k_awake", bars)
        self.assertIn("polyline", plots.latencies(samples))


if __name__ == "__main__":
    unittest.main()
