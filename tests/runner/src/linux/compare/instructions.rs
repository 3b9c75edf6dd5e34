// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions of one map with its unmap, as `map_bench.ko` (tests/linux/modules) found them in a boot of its own that
//! counts instructions: by the pool's operations and by the kernel's.

use super::boot::Boot;

/// The module that measures.
const BENCH: &str = "map_bench";
/// Of its ways, one of a read and one of a write; the others lie between.
const WAYS: [&str; 2] = ["to-device", "from-device"];
/// Of its fills, an empty pool and one that is 90 % full.
const FILLS: [&str; 2] = ["empty", "90"];

/// Instructions without copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Bytes, way and fill.
    pub of: String,
    /// By the pool's operations; `None` where the map failed.
    pub pool: Option<String>,
    /// By the kernel's.
    pub swiotlb: Option<String>,
}

/// The figures of a boot with that module, those that a table has room for.
#[must_use]
pub fn figures(boot: &Boot) -> Vec<Figure> {
    let lines = boot.guest.said.get(BENCH).into_iter().flatten();
    lines.filter_map(|line| figure(line)).collect()
}

/// The value behind `key=` in `line`.
fn text<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut words = line.split(' ').filter_map(|word| word.split_once('='));
    words.find(|(own, _)| *own == key).map(|(_, value)| value)
}

fn figure(line: &str) -> Option<Figure> {
    let (size, way, fill) = (text(line, "size")?, text(line, "way")?, text(line, "fill")?);
    let shown = WAYS.contains(&way) && FILLS.contains(&fill);
    let count = |who: &str| {
        let failed = line.ends_with(&format!("{who}_failed"));
        text(line, who).filter(|_| !failed).map(str::to_owned)
    };
    shown.then(|| Figure {
        of: format!("{size} bytes, {way}, {fill}"),
        pool: count("pool"),
        swiotlb: count("swiotlb"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Figure, figure};

    #[test]
    fn lines_of_the_bench_are_read() {
        let line =
            "size=4096 way=to-device fill=empty pool=105 swiotlb=1070 ratio=0.098 pool_best=1";
        let want = Figure {
            of: "4096 bytes, to-device, empty".into(),
            pool: Some("105".into()),
            swiotlb: Some("1070".into()),
        };
        assert_eq!(figure(line), Some(want.clone()));
        let failed = Figure {
            swiotlb: None,
            ..want
        };
        assert_eq!(figure(&format!("{line} swiotlb_failed")), Some(failed));
        for other in [
            "done",
            "size=1",
            "size=64 way=to-device fill=f90 pool=1 swiotlb=2",
        ] {
            assert_eq!(figure(other), None, "{other}");
        }
    }
}
