# kazoo ships no types; these describe the part of its public interface that is used here.
