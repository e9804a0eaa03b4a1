"""The read API, login, health and the addresses of pages, as routers."""
