package warm;

/** Something to document. */
public final class Library {
    private Library() {}
}
