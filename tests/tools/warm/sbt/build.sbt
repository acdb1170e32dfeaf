organization := "warm"
name := "library"
version := "1.0"
crossPaths := false
autoScalaLibrary := false
managedScalaInstance := false
libraryDependencies += "org.slf4j" % "slf4j-api" % "2.0.16"
