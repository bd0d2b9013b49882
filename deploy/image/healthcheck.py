"""Ask the registry at HOST:PORT whether it is ready, by HTTPS and then by HTTP: exit code 0 if it is.

Its certificate is not verified: the question stays on this machine.
"""

import http.client
import ssl
import sys

SECONDS = 5


def ready(connection: http.client.HTTPConnection) -> bool:
    """Return whether ``GET /readyz`` is answered with 200."""
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main(address: str) -> int:
    """Return the exit code."""
    context = ssl._create_unverified_context()
    by_tls = http.client.HTTPSConnection(address, timeout=SECONDS, context=context)
    return 0 if ready(by_tls) or ready(http.client.HTTPConnection(address, timeout=SECONDS)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
