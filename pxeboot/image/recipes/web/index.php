<?php
$node = htmlspecialchars(gethostname());
$image = is_readable('/run/pxeboot/image') ? htmlspecialchars(trim(file_get_contents('/run/pxeboot/image'))) : 'unknown';
?>
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title><?= $node ?></title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 4rem auto; padding: 0 1rem; color: #223 }
dt { color: #667 } dd { margin: 0 0 1rem; overflow-wrap: anywhere } code { font-size: 1rem }
</style>
</head>
<body>
<h1><?= $node ?></h1>
<dl>
<dt>Node</dt><dd><?= $node ?></dd>
<dt>Image</dt><dd><code><?= $image ?></code></dd>
<dt>PHP</dt><dd><?= PHP_VERSION ?></dd>
</dl>
</body>
</html>
