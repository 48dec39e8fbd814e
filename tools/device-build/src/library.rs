//! Sources of the core library that match the compiler exactly.
//!
//! The rust-src component holds them as files. Where it is not installed, the rust-docs
//! component of the same toolchain holds the same text as rustdoc's source pages: one page per
//! file, the code inside `<pre class="rust"><code>`, each line led by a numbered link. Pages of
//! the two subtrees that core includes by path (stdarch and portable-simd) are listed under
//! core, but belong beside it. What the pages lack are the Markdown files that doc attributes
//! include; empty ones serve.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::error::{AtPath, BuildError};
use crate::toolchain::Toolchain;

/// Path of `core/src/lib.rs`, reconstructed under `cache` if rust-src is not installed.
pub(crate) fn core_root(toolchain: &Toolchain, cache: &Path) -> Result<PathBuf, BuildError> {
    let installed = toolchain.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if installed.is_file() {
        return Ok(installed);
    }
    let library = cache.join("library");
    let root = library.join("core/src/lib.rs");
    let complete = library.join(".complete");
    if complete.is_file() {
        return Ok(root);
    }
    let pages = toolchain.sysroot.join("share/doc/rust/html/src/core");
    if !pages.join("lib.rs.html").is_file() {
        return Err(BuildError::NoLibrary {
            version: toolchain.version.clone(),
            toolchain: toolchain.rustup_name(),
        });
    }
    extract(&pages, &library)?;
    fs::write(&complete, "").at(&complete)?;
    Ok(root)
}

fn extract(pages: &Path, library: &Path) -> Result<(), BuildError> {
    for page in files_below(pages)? {
        let Some(name) = page.strip_prefix(pages).ok().and_then(Path::to_str) else { continue };
        let Some(name) = name.strip_suffix(".html").filter(|n| n.ends_with(".rs")) else {
            continue;
        };
        let beside = name.starts_with("stdarch/") || name.starts_with("portable-simd/");
        let target = library.join(if beside { "" } else { "core/src" }).join(name);
        let html = fs::read_to_string(&page).at(&page)?;
        let code = page_code(&html)
            .ok_or(BuildError::DocsPage { path: page, what: "no <pre class=\"rust\"> block" })?;
        write(&target, &code)?;
        for included in markdown_names(&code) {
            let path = normalize(&target.with_file_name("").join(included));
            if !path.exists() {
                write(&path, "")?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), BuildError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).at(folder)?;
    fs::write(path, text).at(path)
}

/// Every file below `folder`, in a fixed order.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).at(&folder)? {
            let path = entry.at(&folder)?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// The code of a rustdoc source page: tags and line numbers dropped, entities decoded.
fn page_code(html: &str) -> Option<String> {
    const OPEN: &str = "<pre class=\"rust\"><code>";
    let start = html.find(OPEN)? + OPEN.len();
    let mut rest = &html[start..start + html[start..].find("</code></pre>")?];
    let mut code = String::with_capacity(rest.len());
    while let Some(at) = rest.find(['<', '&']) {
        code.push_str(&rest[..at]);
        rest = &rest[at..];
        let skip = if rest.starts_with("<a href=#") {
            rest.find("</a>")? + "</a>".len()
        } else if rest.starts_with('<') {
            rest.find('>')? + 1
        } else {
            let end = rest.find(';')? + 1;
            code.push(match &rest[..end] {
                "&amp;" => '&',
                "&lt;" => '<',
                "&gt;" => '>',
                "&quot;" => '"',
                "&#39;" | "&#x27;" => '\'',
                _ => return None,
            });
            end
        };
        rest = &rest[skip..];
    }
    code.push_str(rest);
    Some(code)
}

/// The string literals of `code` that name Markdown files.
fn markdown_names(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices(".md\"").filter_map(|(end, suffix)| {
        let head = &code[..end];
        let start = head.rfind('"')? + 1;
        let name = &code[start..end + suffix.len() - 1];
        (!name.contains(char::is_whitespace)).then_some(name)
    })
}

/// Resolves `..` in the text of the path: its folders need not exist yet.
fn normalize(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gives_its_code_back() {
        let page = concat!(
            "<head><pre></head><pre class=\"rust\"><code>",
            "<a href=#1 id=1 data-nosnippet>1</a><span class=\"kw\">fn </span>f(a: &amp;<span>u8",
            "</span>) {\n<a href=#2 id=2 data-nosnippet>2</a>    a &lt; b &amp;&amp; c -&gt; d }\n",
            "</code></pre></div>"
        );
        assert_eq!(page_code(page).unwrap(), "fn f(a: &u8) {\n    a < b && c -> d }\n");
        assert_eq!(page_code("<html>no code"), None);
    }

    #[test]
    fn included_markdown_is_found() {
        let code = r#"include_str!("./docs/add.md") x!("c_char.md") "not a.md" "a.rs""#;
        assert_eq!(markdown_names(code).collect::<Vec<_>>(), ["./docs/add.md", "c_char.md"]);
    }

    #[test]
    fn parent_folders_resolve_by_text() {
        assert_eq!(normalize(Path::new("/a/b/../../c/./d.md")), Path::new("/c/d.md"));
    }
}
