-- Dagster keeps its runs and events apart from the plane's own state: a database each, in one server.
CREATE DATABASE dagster;
