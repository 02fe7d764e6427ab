"""The example's own tests run where the example is installed: see `test_thirdparty.py`."""

collect_ignore = ["pickaxe-example"]
