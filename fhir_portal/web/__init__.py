"""HTTP: the only room that imports FastAPI and Starlette."""
