//! Links the addon when the crate is built for Node.js; the engine alone needs nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "node")]
    addon();
}

#[cfg(feature = "node")]
fn addon() {
    napi_build::setup();
    // The exit of a worker thread drops its reference to the addon, while the engine's thread may
    // still run in it: the library stays mapped for the life of the process.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
