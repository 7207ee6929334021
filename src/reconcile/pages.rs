//! A number for each offset of a range, in pages that are made when they are first touched.

/// Offsets in one page: 16 KiB.
const PAGE: usize = 4096;

type Page = Box<[u32; PAGE]>;

/// Zero for every offset that nothing was written for. Memory: 4 bytes an offset of the pages touched, and 8 a page.
pub(super) struct Pages {
    start: i64,
    pages: Vec<Option<Page>>,
}

impl Pages {
    /// From this offset on.
    pub(super) fn from(start: i64) -> Self {
        Self { start, pages: Vec::new() }
    }

    /// The number at this offset, which lies at or behind the start.
    pub(super) fn get(&self, offset: i64) -> u32 {
        let (page, place) = self.place(offset);
        self.pages.get(page).and_then(Option::as_ref).map_or(0, |page| page[place])
    }

    /// The place of the number, to be written.
    pub(super) fn at(&mut self, offset: i64) -> &mut u32 {
        let (page, place) = self.place(offset);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        &mut self.pages[page].get_or_insert_with(|| Box::new([0; PAGE]))[place]
    }

    /// Offsets whose number is one of `wanted`, in order.
    pub(super) fn holding<'a>(&'a self, wanted: &'a [u32]) -> impl Iterator<Item = i64> + 'a {
        let pages = self.pages.iter().enumerate().filter_map(|(at, page)| Some((at * PAGE, page.as_ref()?)));
        pages.flat_map(move |(at, page)| {
            let found = page.iter().enumerate().filter(|(_, number)| wanted.contains(number));
            found.map(move |(place, _)| self.start + i64::try_from(at + place).unwrap_or(i64::MAX))
        })
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let made = self.pages.iter().flatten().count();
        self.pages.capacity() * size_of::<Option<Page>>() + made * PAGE * size_of::<u32>()
    }

    fn place(&self, offset: i64) -> (usize, usize) {
        // Callers keep to their range: what lies before it is not theirs.
        let at = usize::try_from(offset.saturating_sub(self.start)).unwrap_or_default();
        (at / PAGE, at % PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_are_touched_take_memory() {
        let mut pages = Pages::from(1_000);
        *pages.at(1_000) = 1;
        *pages.at(1_000 + 1_000_000_000) = 2;
        assert_eq!(pages.get(1_000), 1);
        assert_eq!(pages.get(1_001), 0);
        assert_eq!(pages.get(5_000_000_000), 0);
        assert_eq!(pages.holding(&[1, 2]).collect::<Vec<_>>(), [1_000, 1_000_001_000]);
        assert!(pages.bytes() < 8 << 20, "{} bytes", pages.bytes());
    }
}
