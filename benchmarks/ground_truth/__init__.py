"""A ground truth for searches: networks of one small space, trained stand-alone, and what follows from them.

Run: python -m benchmarks.ground_truth train [--out FILE] [--searches FILE] [--processes 2]
     python -m benchmarks.ground_truth search [--out FILE] [--strategies ...] [--seeds 5] [--processes 2]
     python -m benchmarks.ground_truth fit [--table FILE] [--picture FILE.png]
     python -m benchmarks.ground_truth compare [--table FILE] [--searches FILE] [--picture FILE.png]
"""
