#!/usr/bin/env python3
"""Prints one line about the skipped tests of a ctest run: how many and, for each reason, which.

    skipped_tests.py TESTS.xml    what ctest --output-junit wrote
"""
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict


def skip_reason(output):
    """GoogleTest prints the reason on the lines after `file:line: Skipped`; ours under mpirun print `SKIP: reason`."""
    for pattern in (r"^SKIP: *(.+)$", r": Skipped\n(.+?)\n"):
        match = re.search(pattern, output, re.MULTILINE)
        if match and match.group(1).strip():
            return match.group(1).strip()
    return "no reason given"


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 1
    try:
        cases = ElementTree.parse(sys.argv[1]).getroot().findall("testcase")
    except (OSError, ElementTree.ParseError) as error:
        print(f"skipped tests: unknown, {error}")
        return 1
    by_reason = defaultdict(list)
    for case in cases:
        if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            by_reason[skip_reason(case.findtext("system-out") or "")].append(case.get("name"))
    num_skipped = sum(len(names) for names in by_reason.values())
    reasons = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in sorted(by_reason.items()))
    print(f"skipped tests: {num_skipped} of {len(cases)}" + (f": {reasons}" if reasons else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
