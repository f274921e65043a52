"""The log of the HTTP servers: faults of peers are no errors of ours."""

import logging

from aiohttp.http_exceptions import HttpProcessingError

log = logging.getLogger(__name__)


class _OursOnly(logging.Filter):
    """Lets our own faults through; a peer that asks nonsense or goes away becomes a debug line."""

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        if not isinstance(fault, HttpProcessingError | ConnectionError):
            return True
        log.debug("HTTP client's fault: %s", fault)
        return False


def http_log() -> logging.Logger:
    """The logger to give to aiohttp's servers."""
    logger = logging.getLogger("pxeboot.web.server")
    if not any(isinstance(item, _OursOnly) for item in logger.filters):
        logger.addFilter(_OursOnly())
    return logger
