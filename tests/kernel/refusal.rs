//! Kernels below the floor.

use gateway_agent::kernel::{Error, Kernel};

use crate::ground::Ground;

/// Starting there fails, and the error names everything that is missing. Prints the names.
pub(crate) fn an_old_kernel_is_refused_by_name() -> bool {
    let ground = Ground::new();
    match Kernel::attach(ground.config()) {
        Ok(_) => {
            println!("the programs started on this kernel");
            false
        }
        Err(error @ Error::Missing(_)) => {
            println!("{error}");
            let Error::Missing(missing) = error else { return false };
            let names: Vec<_> = missing.iter().map(|missing| missing.what).collect();
            println!("refused: it lacks {}", names.join(", "));
            !names.is_empty()
        }
        Err(error) => {
            println!("refused for another reason: {error}");
            false
        }
    }
}
