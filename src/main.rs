//! The `moderato` program: reads the command line and hands over.

use clap::Parser as _;

fn main() {
    moderato::fault::listen();
    let exit = moderato::cli::run(moderato::cli::Arguments::parse());
    // Provider libraries may crash in destructors at a normal return; everything of ours is flushed by now.
    std::process::exit(exit.code())
}
