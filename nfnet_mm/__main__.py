"""``python -m nfnet_mm COMMAND``."""

from nfnet_mm.commands import main

if __name__ == '__main__':
    main()
