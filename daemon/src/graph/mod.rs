//! The build graph: LLB's ops as typed vertices.
//!
//! There is one language inside the daemon. A Dockerfile is turned into [`Vertex`]es directly; a
//! definition that arrives over the wire becomes the same vertices by [`from_definition`]. A
//! vertex is named by the digest of its marshalled op, which covers its inputs, so that equal
//! graphs are equal digests and a cycle cannot be written down.

mod definition;
pub(crate) mod go_json;
mod unify;
mod vertex;

pub(crate) use definition::{DefinitionError, from_definition, from_input, to_definition};
pub(crate) use unify::unify;
pub(crate) use vertex::{Edge, SourceLocation, Vertex, VertexDigest, VertexMeta};
