//! Which project a caller means.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::ground::STATE;
use crate::key::Target;

/// What marks a project, the strongest first.
const MARKS: [&str; 3] = [STATE, ".git", "package.json"];

/// The root of the project: `named` if given, else `STORYLOCK_ROOT`, else the nearest folder from the
/// working directory upward that has `.ai`, else `.git`, else `package.json`, else the working directory.
///
/// # Errors
/// `ERR_INVALID_ARG_VALUE` for a name that is no path; what the system says when there is no working
/// directory.
pub fn find(named: Option<&str>) -> Result<PathBuf, Error> {
    let named = named.map(str::to_owned);
    let given =
        named.or_else(|| std::env::var("STORYLOCK_ROOT").ok().filter(|set| !set.is_empty()));
    if let Some(given) = given {
        return Ok(Target::new(&given)?.path().to_owned());
    }
    let here =
        std::env::current_dir().map_err(|cause| Error::system("find", Path::new("."), &cause))?;
    let marked = |mark: &&str| here.ancestors().find(|folder| folder.join(mark).exists());
    Ok(MARKS.iter().find_map(marked).unwrap_or(&here).to_owned())
}
