//! Dockerfile parser, expansion and stages, without I/O.
