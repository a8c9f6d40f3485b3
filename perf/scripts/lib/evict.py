"""Drops the files of a folder from the page cache: `evict.py DIRECTORY`.

Only clean pages go, so the caller syncs first. Nothing else in the page cache is touched.
"""

import os
import sys


def main():
    for entry in os.scandir(sys.argv[1]):
        file = os.open(entry.path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


if __name__ == "__main__":
    main()
