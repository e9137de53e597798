# glmGamPoi's estimates of overdispersions and coefficients, nothing shrunk; see r.py and ../theta.py.
suppressPackageStartupMessages(library(glmGamPoi))
design <- matrix(read("X"), ncol = p, byrow = TRUE)
counts <- matrix(read("y"), ncol = nrow(design), byrow = TRUE)
offset <- matrix(read("offset"), nrow(counts), ncol(counts), byrow = TRUE)
began <- proc.time()
fit <- glm_gp(counts, design = design, offset = offset, size_factors = FALSE, overdispersion = TRUE,
              overdispersion_shrinkage = FALSE, on_disk = FALSE)
spent <- proc.time() - began
writeBin(as.double(t(fit$Beta)), file.path(folder, "coefficients.bin"))
writeBin(as.double(fit$overdispersions), file.path(folder, "overdispersion.bin"))
writeLines(format(spent[["elapsed"]], digits = 15), file.path(folder, "seconds.txt"))
writeLines(format(spent[["user.self"]] + spent[["sys.self"]], digits = 15), file.path(folder, "cpu_seconds.txt"))
