"""What to do about a missing operator."""

HOW_TO_COMPILE = (
    '`make ops` in a clone compiles them, elsewhere '
    '`MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv` does'
)
