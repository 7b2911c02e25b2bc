//! Where the programs under test are.

use std::env;
use std::path::PathBuf;

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
