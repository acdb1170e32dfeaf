package warm;

public final class Library {
    private Library() {}
}
