module auditspan.invalid/statehash

go 1.25.0
