//! The binary: hands the command line to the library and ends with its exit code.

use std::process::ExitCode;

use wandb_bridge::commands;
use wandb_bridge::settings::Environment;

fn main() -> ExitCode {
    ExitCode::from(commands::run(std::env::args_os(), &Environment::of_process()))
}
