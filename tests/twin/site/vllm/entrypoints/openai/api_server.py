"""`python -m vllm.entrypoints.openai.api_server`: the server without the word "serve"."""

import sys

from vllm.twin.start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], by_module=True))
