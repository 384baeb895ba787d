"""Where Linux systems put nginx and its modules, and what we name when nobody says."""

from __future__ import annotations

# The first one is Debian's and Ubuntu's; a source build (and omni-infer's image) uses the last.
NGINX_PLACES = ("/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx")
SOURCE_BUILD_NGINX = "/usr/local/nginx/sbin/nginx"
MODULE_PLACES = (
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/share/nginx/modules",
    "/etc/nginx/modules",
    "/usr/local/nginx/modules",
    "/usr/local/lib/nginx/modules",
)
JS_MODULE = "ngx_http_js_module.so"

ROUTER_REQUIREMENT = "vllm-router==0.1.17"
ROUTER_PROGRAM = "bin/vllm-router"
