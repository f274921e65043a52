"""UDP_SEGMENT (udp(7)): one send for many datagrams of one size to one place, cut apart at its end."""

import errno

UDP_SEGMENT = 103
"""At SOL_UDP, linux/udp.h; Python's socket module has no name for it."""
MAX_SEGMENTS = 64
"""UDP_MAX_SEGMENTS before Linux 6.9 (include/linux/udp.h)."""
MAX_SEGMENTED = 65535 - 20 - 8
"""Largest send, bytes: an IPv4 packet's payload."""
NO_SEGMENTS = (errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOPROTOOPT)
"""How a kernel, or the driver of a card, says that it cannot cut them."""
