# Data and references for ../07_counts.ipynb. Run in this folder: Rscript counts.R
#
# Negative binomial counts of 1,000 genes in 16 samples of two conditions and two batches, with library sizes; the condition
# changes every fifth gene. edgeR (Bioconductor 3.16): tagwise dispersions without shrinkage (prior.df = 0), which maximise Cox
# and Reid's adjusted likelihood on a grid, glmFit without prior counts, and glmLRT for the condition. glmGamPoi: its own
# overdispersions without shrinkage, and coefficients. Logarithms are natural.

suppressPackageStartupMessages({library(edgeR); library(glmGamPoi)})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
set.seed(7)
genes <- 1000
samples <- data.frame(condition = rep(0:1, each = 8), batch = rep(0:1, 8), log_size = round(rnorm(16, 0, 0.3), 4))
design <- model.matrix(~ condition + batch, samples)
level <- pmax(1, rnorm(genes, 3.5, 1.3))
effect <- ifelse(seq_len(genes) %% 5 == 0, sample(c(-1, 1), genes, TRUE) * runif(genes, 0.4, 1.5), 0)
dispersion <- exp(rnorm(genes, log(0.15), 0.5))
eta <- outer(level, rep(1, 16)) + outer(effect, samples$condition) + outer(rnorm(genes, 0, 0.3), samples$batch)
mu <- exp(sweep(eta, 2, samples$log_size, "+"))
counts <- matrix(rnbinom(length(mu), mu = mu, size = 1 / dispersion), genes)
colnames(counts) <- paste0("s", 1:16)

offset <- matrix(samples$log_size, genes, 16, byrow = TRUE)
y <- DGEList(counts)
y$offset <- offset
tagwise <- estimateDisp(y, design, prior.df = 0, trend.method = "none", min.row.sum = 0, grid.length = 201,
                        grid.range = c(-14, 14))$tagwise.dispersion
fit <- glmFit(counts, design, dispersion = tagwise, offset = offset, prior.count = 0)
test <- glmLRT(fit, coef = 2)$table
poi <- glm_gp(counts, design = design, offset = offset, size_factors = FALSE, overdispersion = TRUE,
              overdispersion_shrinkage = FALSE)

found <- data.frame(
  effect = round(effect, 4), dispersion = signif(dispersion, 5), counts,
  edger_dispersion = signif(tagwise, 8), edger_condition = signif(fit$coefficients[, 2], 10), edger_lr = signif(test$LR, 10),
  glmgampoi_dispersion = signif(poi$overdispersions, 8), glmgampoi_condition = signif(poi$Beta[, 2], 10)
)
write.csv(found, "counts.csv", row.names = FALSE, quote = FALSE)
write.csv(samples, "samples.csv", row.names = FALSE, quote = FALSE)
