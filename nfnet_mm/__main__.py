"""``python -m nfnet_mm COMMAND``."""

import sys

if __name__ == '__main__':
    if sys.argv[1:] == ['doctor']:  # which must speak also where torch or mmengine cannot be imported
        from nfnet_mm.doctor import report

        sys.exit(0 if report() else 1)
    from nfnet_mm.commands import main

    main()
