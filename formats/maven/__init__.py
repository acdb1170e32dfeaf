"""Maven repositories, for Maven, Gradle, sbt, coursier, Ivy and Bazel."""

from .handler import Maven

handler = Maven()
