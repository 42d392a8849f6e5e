//! Inode numbers. They are computed from what an entry is, not handed out.
//!
//! ```text
//! bit 63       which side of the snapshot: 0 items, 1 text
//! bits 62..40  slot of the snapshot, 1 to 2^23 - 1; 0 for the folders of the mount itself, or for the only snapshot
//! bits 39..0   rank of the entry + 1; in slot 0 of a catalog one of the numbers in `fixed`, or from 2^39 on
//!              what is below `restore/`
//! ```
//!
//! There is no table of inodes, except for `restore/`. So no memory grows with the number of entries that were looked
//! at, the kernel's `forget` needs no bookkeeping for single entries, and a number means the same file after a remount.
//! The root of the file system is always 1, as FUSE requires.

use crate::view::{Rank, Side};

const RANK_BITS: u32 = 40;
const SLOT_BITS: u32 = 23;
const TEXT_BIT: u64 = 1 << 63;

/// Inode numbers of the files and folders that the mount itself adds in the catalog layout.
pub mod fixed {
    use super::Ino;

    /// The root of the file system.
    pub const ROOT: Ino = Ino(1);
    /// The symbolic link to the newest snapshot.
    pub const LATEST: Ino = Ino(2);
    /// The folder of snapshots.
    pub const SNAPSHOTS: Ino = Ino(3);
    /// The file `README.txt`.
    pub const README: Ino = Ino(4);
    /// The folder of snapshots shown as text.
    pub const TEXT: Ino = Ino(5);
    /// The folder into which files are dropped.
    pub const RESTORE: Ino = Ino(6);
    /// The first of the numbers that are handed out below `restore/`. No number is handed out twice.
    pub const LIVE_FIRST: Ino = Ino(1 << 39);

    /// Returns the top folder of this side of the snapshots.
    pub fn side_folder(side: super::Side) -> Ino {
        match side {
            super::Side::Items => SNAPSHOTS,
            super::Side::Text => TEXT,
        }
    }
}

/// An inode number as the kernel sees it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ino(pub u64);

/// The part of an inode number that identifies the snapshot.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(u32);

impl Slot {
    /// The slot of the mount's own folders, or of the snapshot in a mount of a single snapshot.
    pub const ZERO: Slot = Slot(0);

    /// Returns the preferred slot of a snapshot, never [`Slot::ZERO`]. It depends only on the id.
    pub fn preferred(id: &[u8; 32]) -> Slot {
        // FNV-1a, 64 bits. Ids usually are hashes already, but a catalog may number its snapshots 1, 2, 3.
        let hash =
            id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        let folded = (hash ^ (hash >> 32)) % u64::from(Self::COUNT);
        Slot(u32::try_from(folded).expect("reduced modulo a u32") + 1)
    }

    /// Returns the slot to try if this one is taken.
    pub fn next(self) -> Slot {
        Slot(self.0 % Self::COUNT + 1)
    }

    /// Number of slots for snapshots.
    pub const COUNT: u32 = (1 << SLOT_BITS) - 1;
}

impl Ino {
    /// Returns the inode number of the entry at `rank`, or `None` if the rank is greater than [`Rank::MAX`].
    pub fn of(side: Side, slot: Slot, rank: Rank) -> Option<Ino> {
        let side = if side == Side::Text { TEXT_BIT } else { 0 };
        (rank <= Rank::MAX).then(|| Ino(side | u64::from(slot.0) << RANK_BITS | (rank.0 + 1)))
    }

    /// Returns the side of the snapshot.
    pub fn side(self) -> Side {
        if self.0 & TEXT_BIT == 0 { Side::Items } else { Side::Text }
    }

    /// Returns the snapshot's slot.
    pub fn slot(self) -> Slot {
        Slot(u32::try_from((self.0 & !TEXT_BIT) >> RANK_BITS).expect("23 bits are left"))
    }

    /// Returns whether this is `restore/` or below it. Only meaningful for a mount that has `restore/`.
    pub(crate) fn is_live(self) -> bool {
        self == fixed::RESTORE || (self.side() == Side::Items && self.slot() == Slot::ZERO && self >= fixed::LIVE_FIRST)
    }

    /// Returns the rank within the snapshot, or `None` for a number that [`Ino::of`] never returns.
    pub fn rank(self) -> Option<Rank> {
        (self.0 & ((1 << RANK_BITS) - 1)).checked_sub(1).map(Rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn number_tells_side_slot_and_rank(id: [u8; 32], rank in 0..=Rank::MAX.0, text: bool) {
            let slot = Slot::preferred(&id);
            prop_assert_ne!(slot, Slot::ZERO);
            let side = if text { Side::Text } else { Side::Items };
            let ino = Ino::of(side, slot, Rank(rank)).unwrap();
            prop_assert_eq!((ino.side(), ino.slot(), ino.rank()), (side, slot, Some(Rank(rank))));
            prop_assert_eq!(ino.0 >> 63, u64::from(text));
        }
    }

    #[test]
    fn edges() {
        assert_eq!(Ino::of(Side::Items, Slot::ZERO, Rank::ROOT), Some(fixed::ROOT));
        assert_eq!(Ino::of(Side::Items, Slot::ZERO, Rank(Rank::MAX.0 + 1)), None);
        assert_eq!(Ino(1 << RANK_BITS).rank(), None);
        assert_eq!(Slot(Slot::COUNT).next(), Slot(1), "probing wraps around and leaves out slot 0");
        assert_eq!(Slot(7).next(), Slot(8));
    }
}
