//! `src/proto/` is what `proto/` says.

use std::path::Path;
use std::{env, fs};

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["tensorboard.proto", "wandb_internal.proto"];
    let descriptors = protox::compile(files, [root.join("proto")]).expect("`proto/` compiles");
    prost_build::Config::new()
        .out_dir(into)
        // Payloads stay slices of the record they came in.
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)
        .expect("prost generates");
}

#[test]
fn generated_code_is_current() {
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto");
    for name in ["tensorboard.rs", "wandb_internal.rs"] {
        let text = fs::read_to_string(fresh.path().join(name)).unwrap();
        let place = committed.join(name);
        if env::var_os("UPDATE_PROTO").is_some() {
            fs::write(&place, text).unwrap();
        } else {
            assert!(
                fs::read_to_string(&place).unwrap_or_default() == text,
                "{name} is stale: run this test with UPDATE_PROTO=1"
            );
        }
    }
}
