//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::layer::LayerTar;

/// The client: `$KILN_BIN`, or the one of this build.
pub fn kiln() -> PathBuf {
    program("KILN_BIN", "kiln")
}

/// The daemon: `$KILND_BIN`, or the one of this build.
pub fn kilnd() -> PathBuf {
    program("KILND_BIN", "kilnd")
}

fn program(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    // <target>/<profile>/deps/<this test>: the programs are two levels up.
    let test = env::current_exe().expect("path of this test");
    let path = test.ancestors().nth(2).expect("a test lies in deps/").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace --bins`, or set {variable}",
        path.display()
    );
    path
}

/// A layer with `program` as `name`, and the libraries it is linked to.
pub fn program_layer(program: &Path, name: &str) -> LayerTar {
    let linked = Command::new("ldd").arg(program).output().expect("ldd");
    let linked = String::from_utf8(linked.stdout).expect("text");
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/'));
    let mut layer = LayerTar::new();
    for library in libraries {
        let content = std::fs::read(library).expect("a library");
        layer = layer.file(library.trim_start_matches('/'), 0o755, &content);
    }
    layer.file(name, 0o755, &std::fs::read(program).expect("a program"))
}
