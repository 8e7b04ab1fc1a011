module auditspan.invalid/interop

go 1.25.0

require golang.org/x/mod v0.40.0 // the last version that does with Go 1.25, as the Collector build does
