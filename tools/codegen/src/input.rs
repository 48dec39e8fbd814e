//! From paths to kernel reports: directories, code objects, bundles, PTX.

use std::fs;
use std::path::{Path, PathBuf};

use code_object::{CodeObject, bundle};

use crate::report::KernelReport;
use crate::{CodegenError, Launch, amdgpu, ptx};

const ELF_MAGIC: &[u8] = b"\x7fELF";

/// What a file turned out to be.
enum Content {
    CodeObject,
    Bundle,
    Ptx,
}

/// What the bytes are, judged by how they start; PTX has no magic and goes by its name.
fn content(path: &Path, bytes: &[u8]) -> Option<Content> {
    if bytes.starts_with(ELF_MAGIC) {
        Some(Content::CodeObject)
    } else if bundle::is_bundle(bytes) {
        Some(Content::Bundle)
    } else if path.extension().is_some_and(|extension| extension == "ptx") {
        Some(Content::Ptx)
    } else {
        None
    }
}

/// Reads every input. In a directory, files of other kinds and subdirectories are passed over;
/// a file named outright must be code.
pub(crate) fn read(
    inputs: &[PathBuf],
    launches: &[Launch],
) -> Result<Vec<KernelReport>, CodegenError> {
    let mut kernels = Vec::new();
    for input in inputs {
        let directory = input.is_dir();
        let files = if directory { list(input)? } else { vec![input.clone()] };
        for path in files {
            let bytes = fs::read(&path).map_err(|reason| io(&path, reason))?;
            match content(&path, &bytes) {
                Some(content) => kernels.extend(read_file(&path, &bytes, &content, launches)?),
                None if directory => {}
                None => return Err(CodegenError::NotCode { path }),
            }
        }
    }
    Ok(kernels)
}

fn io(path: &Path, reason: std::io::Error) -> CodegenError {
    CodegenError::Io { path: path.to_owned(), reason }
}

/// The files of a directory, sorted by name.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CodegenError> {
    let entries = directory.read_dir().map_err(|reason| io(directory, reason))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|reason| io(directory, reason))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(
    path: &Path,
    bytes: &[u8],
    content: &Content,
    launches: &[Launch],
) -> Result<Vec<KernelReport>, CodegenError> {
    let damaged = |reason| CodegenError::CodeObject { path: path.to_owned(), reason };
    let file = path.display().to_string();
    let objects = match content {
        Content::Ptx => {
            let text = String::from_utf8_lossy(bytes);
            return ptx::kernels(&text, &file, launches)
                .map_err(|problem| CodegenError::Ptx { path: path.to_owned(), problem });
        }
        Content::CodeObject => vec![bytes],
        Content::Bundle => {
            let entries = bundle::entries(bytes).map_err(damaged)?;
            entries.iter().filter(|e| e.chip().is_some()).map(|e| e.bytes).collect()
        }
    };
    let mut kernels = Vec::new();
    for object in objects {
        let object = CodeObject::parse(object).map_err(damaged)?;
        kernels.extend(amdgpu::kernels(&object, &file, launches)?);
    }
    Ok(kernels)
}
