//! BuildKit's wire, and the pure logic that both of its ends share.
